# The report of tests/crash/nightly.sh, from the JSONs of its parts.

def name:
  { clean: "power, clean", torn: "power, torn", reordered: "power, reordered", kill: "process killed" }[.];

def bound($crash): if $crash == "kill" then .process_crash else .power_loss end;

# Why the worst stays so far below what is proved.
def reason($crash; $bound; $worst):
  if $bound == null then "no bound: what is lost grows with the load until the next sync"
  elif $worst > $bound then "**more than proved**"
  elif $bound == 0 or $worst * 10 >= $bound * 8 then ""
  elif $crash == "torn" then "a part of what was not synced survives such a cut"
  elif $crash == "kill" then "the kill has to come when a batch is full and not yet written"
  else "the cut has to come when most is pending"
  end;

def line: if .ms == null then "                 \(.what)" else "\(.ms) ms" as $ms
  | (" " * ([0, 15 - ($ms | length)] | max)) + "\($ms)  \(.what)" end;

. as $parts
| ($parts[0].machine) as $m
| [ $parts[] | . as $part | .policies[]
    | { policy, power_loss, process_crash, worst, trials } ]
| group_by(.policy)
| map({
    policy: .[0].policy, power_loss: .[0].power_loss, process_crash: .[0].process_crash,
    trials: (map(.trials) | add),
    worst: (map({ worst, at: (.worst.number as $n | .trials[] | select(.number == $n)) })
      | max_by([.at.violation != null, .at.lost_syncs, .at.lost_commands]) | .worst)
  }) as $policies
| "# Crash report",
  "",
  "Made by `tests/crash/nightly.sh`; [crashtest.md](crashtest.md) explains the columns.",
  "",
  "- \($m.cpu), \($m.cores) cores, Linux \($m.kernel), Redis \($m.redis)",
  "- commit \($commit), seed \([$parts[].seed] | unique | map(tostring) | join(", ")), \($parts[0].clients) clients, a sync takes \($parts[0].latency_us) µs",
  "- \([$policies[].trials | length] | add) crashes, \([$policies[].trials[].violation | select(. != null)] | length) violations",
  "",
  "| policy | crash | crashes | acknowledged | overlapping | worst: syncs | proved | mean: syncs | worst: commands | violations | why far from the bound |",
  "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|---|",
  ( $policies[] as $p
    | $p.trials | group_by(.crash)[]
    | .[0].crash as $crash
    | ($p | bound($crash)) as $bound
    | (map(.lost_syncs) | max) as $worst
    | "| \($p.policy) | \($crash | name) | \(length) | \(map(.acknowledged) | add) | \(map(.overlapping_writes) | add) | \($worst) | \($bound // "any") | \((map(.lost_syncs) | add) / length * 10 | round / 10) | \(map(.lost_commands) | max) | \(map(select(.violation != null)) | length) | \(reason($crash; $bound; $worst)) |"
  ),
  "",
  "## Violations",
  "",
  ( [ $policies[] as $p | $p.trials[] | select(.violation != null)
      | "- \($p.policy), crash \(.number): \(.violation)" ]
    | if length == 0 then "None." else .[] end ),
  "",
  "## The worst of each policy",
  ( $policies[]
    | "", "### \(.policy)", "", "    \(.worst.again)", "",
      (.worst.timeline[] | "    " + line) )
