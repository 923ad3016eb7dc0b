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
import "./statistics.js";

// Gradio takes `autocomplete` from a password field whatever it is told, and browsers then offer to keep the key.
const KEPT_OUT = {autocomplete: "new-password", "data-1p-ignore": "", "data-lpignore": "true", "data-bwignore": ""};

function keepOut() {
  const field = document.querySelector("#nb-key input:not([data-1p-ignore])");
  if (field) for (const [name, value] of Object.entries(KEPT_OUT)) field.setAttribute(name, value);
}

// Gradio gives each radio button a name of its own: arrow keys then lead nowhere, and nobody hears that they belong together.
function group() {
  for (const place of document.querySelectorAll("#nb-ratio, #nb-size")) {
    const buttons = place.querySelectorAll("input[type=radio]");
    for (const button of buttons) if (button.name !== place.id) button.name = place.id;
    const box = buttons[0]?.closest(".wrap");
    const label = place.querySelector("[data-testid=block-info]")?.textContent ?? "";
    if (!box || box.getAttribute("aria-label") === label) continue;
    box.setAttribute("role", "radiogroup");
    box.setAttribute("aria-label", label);
  }
}

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

new MutationObserver(mend).observe(document.documentElement, {childList: true, subtree: true, attributeFilter: ["name"]});
mend();
