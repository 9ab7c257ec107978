// The marks of what was proved of the age of losses, and what the box says of a policy that exceeds it.

$("input[name=unit][value=age_ns]").click();
const dot = all("#frontier .point").find((p) => p.getAttribute("aria-label").startsWith("window n=16"));
dot.focus();
return {
  bounds: all("#frontier .bound").length,
  exceeded: all("#frontier .bound.exceeded").length,
  key: $("#frontier-key").textContent.includes("exceeded"),
  tip: $("#tip").textContent,
};
