// From a pasted text to prompts, as the gateway splits it (nanobatch_gateway/prompts.py). For the live count only: which
// prompts there are, the gateway decides.
const BLANK = /^[\p{White_Space}\p{Cf}]*$/u;

export function splitPrompts(text) {
  text = text.replace(/^\ufeff/, "");
  if (!/[\r\n]/.test(text) && /\\n[ \t]*\\n/.test(text)) text = text.replaceAll("\\n", "\n");
  const prompts = [];
  let paragraph = [];
  for (const line of [...text.split(/\r\n|\r|\n/), ""]) {
    if (!BLANK.test(line)) paragraph.push(line);
    else if (paragraph.length) {
      prompts.push(paragraph.join("\n").trim());
      paragraph = [];
    }
  }
  return prompts;
}

export const MAX_PROMPTS = 100;

// Characters as the gateway counts them: code points, not UTF-16 units.
export function lengthOf(text) {
  return [...text].length;
}
