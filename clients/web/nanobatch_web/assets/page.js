// The page's own elements. Prompts and messages are text everywhere: nodes are made, never parsed from strings.
import "./prompt-list.js";
import "./references.js";
import "./review.js";
import "./run.js";
import "./outcome.js";
import "./gallery.js";
import "./history.js";
import "./account.js";
import "./field-errors.js";
import "./reconnect.js";
import "./statistics.js";

// Gradio takes `autocomplete` from a password field whatever it is told, and browsers then offer to keep the key.
const KEPT_OUT = {autocomplete: "new-password", "data-1p-ignore": "", "data-lpignore": "true", "data-bwignore": ""};

new MutationObserver(() => {
  const field = document.querySelector("#nb-key input:not([data-1p-ignore])");
  if (field) for (const [name, value] of Object.entries(KEPT_OUT)) field.setAttribute(name, value);
}).observe(document.documentElement, {childList: true, subtree: true});
