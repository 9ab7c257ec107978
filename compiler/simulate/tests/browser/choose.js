// Chooses policies, from the list and in the frontier.

const state = () => ({
    text: $("#timeline-text").textContent,
    label: $("#timeline svg").getAttribute("aria-label"),
    lost: all("#timeline rect.event.lost").length,
    tables: all("details.events").filter((d) => !d.hidden).map((d) => d.dataset.policy),
});
const choose = (value) => {
    $("#timeline-policy").value = value;
    $("#timeline-policy").dispatchEvent(new Event("change", { bubbles: true }));
    return state();
};
const states = [choose("1"), choose("3"), choose("7")];
all("#frontier .point")[4].dispatchEvent(new MouseEvent("click", { bubbles: true }));
states.push(state());
const point = all("#frontier .point")[3];
point.focus();
const tip = $("#tip").hidden ? null : $("#tip").textContent;
return { states, tip };
