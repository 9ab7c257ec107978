// What the tests' scripts use.

const $ = (selector) => document.querySelector(selector);
const all = (selector) => [...document.querySelectorAll(selector)];
const view = () => ["from", "to"].map((end) => Number($("#timeline svg").dataset[end]));
const width = () => view()[1] - view()[0];
const press = (key) => $("#timeline svg").dispatchEvent(
  new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
