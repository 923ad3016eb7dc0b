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
new MutationObserver(() => { keepOut(); nameLinks(words); }).observe(document.documentElement, {childList: true, subtree: true});
keepOut();
nameLinks(words);
