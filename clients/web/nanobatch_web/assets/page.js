// The page's own elements. Prompts and messages are text everywhere: nodes are made, never parsed from strings.
import {MOUNT, texts} from "./base.js";
import "./prompt-list.js";
import "./references.js";
import "./review.js";
import "./run.js";
import "./outcome.js";
import "./gallery.js";
import "./history.js";
import "./account.js";
import "./heading.js";
import "./field-errors.js";
import "./reconnect.js";
import "./running.js";
import "./statistics.js";

// Gradio takes `autocomplete` from a password field whatever it is told, and browsers then offer to keep the key.
const KEPT_OUT = {autocomplete: "new-password", "data-1p-ignore": "", "data-lpignore": "true", "data-bwignore": ""};

function keepOut() {
  const field = document.querySelector("#nb-key input:not([data-1p-ignore])");
  if (field) for (const [name, value] of Object.entries(KEPT_OUT)) field.setAttribute(name, value);
}

// Gradio gives each radio button a name of its own: nobody hears that they belong together, and arrow keys lead nowhere.
// A common name would be the browser's way, but Gradio checks one before it unchecks another, and the browser then both.
function group() {
  for (const place of document.querySelectorAll("#nb-ratio, #nb-size")) {
    const box = place.querySelector("input[type=radio]")?.closest(".wrap");
    const label = place.querySelector("[data-testid=block-info]")?.textContent ?? "";
    if (!box || box.getAttribute("aria-label") === label) continue;
    box.setAttribute("role", "radiogroup");
    box.setAttribute("aria-label", label);
  }
}

const STEPS = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1};

document.addEventListener("keydown", (event) => {
  const box = event.target.closest?.("#nb-ratio [role=radiogroup], #nb-size [role=radiogroup]");
  const step = STEPS[event.key];
  if (!box || !step) return;
  event.preventDefault();
  const buttons = [...box.querySelectorAll("input[type=radio]")];
  const next = buttons[(buttons.indexOf(event.target) + step + buttons.length) % buttons.length];
  next.focus();
  next.click();
});

// Gradio names the links to its pages in one language.
const PAGES = ["results", "history", "statistics"];

function nameLinks(words) {
  for (const page of PAGES) {
    const link = document.querySelector(`nav a[href$="${MOUNT}/${page}"]`);
    const name = words[`nav.${page}`];
    if (link && name && link.textContent !== name) link.textContent = name;
  }
}

const words = await texts();

function mend() {
  keepOut();
  group();
  nameLinks(words);
}

new MutationObserver(mend).observe(document.documentElement, {childList: true, subtree: true});
mend();
