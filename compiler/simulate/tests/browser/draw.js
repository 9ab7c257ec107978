// Counts what is drawn, for each unit of loss.

const unit = (value) => { $(`input[name=unit][value=${value}]`).click(); return {
    points: all("#frontier .point").length,
    labels: all("#frontier .label").map((label) => {
        const { x, y, width, height } = label.getBBox();
        return { text: label.textContent, x, y, width, height };
    }),
    bounds: all("#frontier .bound").length,
    unbounded: $("#frontier").textContent.includes("unbounded"),
}; };
return {
    units: ["syncs", "commands", "bytes", "age_ns"].map(unit),
    histograms: all("#latency .histogram").map((h) => h.querySelectorAll(".bar").length),
    marks: all("#latency .mark").length,
    lanes: ["application", "engine", "disk"].map((lane) => all(`#timeline rect.event.${lane}`).length),
    crash: all("#timeline .crash").length,
    options: all("#timeline-policy option").length,
    broken: all("svg *").filter((e) => [...e.attributes].some((a) => /NaN|undefined|Infinity/.test(a.value))).length,
    wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
};
