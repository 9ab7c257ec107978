// Zooms and moves the timeline in every way.

const steps = [width()];
const note = () => steps.push(width());
press("+"); note();
$("#zoom-in").click(); note();
press("-"); note();
$("#zoom-all").click(); note();
const wheel = (deltaY) => {
    const { x, y, width, height } = $("#timeline svg").getBoundingClientRect();
    const at = { clientX: x + width / 2, clientY: y + height / 2 };
    const event = new WheelEvent("wheel", { deltaY, ...at, bubbles: true, cancelable: true });
    $("#timeline svg").dispatchEvent(event);
    return event.defaultPrevented;
};
const scrolls = !wheel(300);
const zooms = wheel(-300); note();
const before = view();
press("ArrowLeft");
const left = view();
press("ArrowRight");
const right = view();
const drag = (type, clientX) => $("#timeline svg").dispatchEvent(
    new PointerEvent(type, { clientX, clientY: 10, button: 0, buttons: 1, bubbles: true }));
drag("pointerdown", 300); drag("pointermove", 340); drag("pointerup", 340);
const dragged = view();
drag("pointermove", 500);
const after = view();
press("0"); note();
const bars = all("#timeline rect.event").length;
for (let i = 0; i < 60; i++) press("+");
const narrowest = width();
const fewer = all("#timeline rect.event").length;
return { steps, scrolls, zooms, before, left, right, dragged, after, narrowest, bars, fewer };
