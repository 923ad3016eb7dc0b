// The page's own elements. Prompts and messages are text everywhere: nodes are made, never parsed from strings.
import "./prompt-list.js";
import "./references.js";
import "./review.js";
import "./run.js";
import "./outcome.js";
