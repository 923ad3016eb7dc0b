// What a paused run needs to go on: nothing, another key, a higher cap.
import {AtField} from "./at-field.js";
import {dollars, node, Refusal, sentence, unanswered} from "./base.js";

const MICROS = 1e6;

// Returns a form; go({api_key, cap_micros}) fails where more is needed, or where it cannot be done.
export function resumeForm(element, execution, go) {
  const needs = new Set({INVALID_KEY: ["key"], SPEND_CAP: ["cap"]}[execution.pause] ?? []);
  const field = (name, label, attributes) => {
    const input = node("input", {id: `nb-resume-${name}`, required: true, ...attributes});
    const at = new AtField(input);
    const row = node("div", {class: "nb-field", hidden: true}, node("label", {for: input.id}, label), input, at.said);
    return {input, row, at};
  };
  const key = field("key", element.say("key.label"), {type: "password", autocomplete: "new-password", spellcheck: "false"});
  const cap = field("cap", element.say("resume.cap", {cap: dollars(execution.cap ?? 0)}), {
    type: "number", inputmode: "decimal", step: "0.01", min: ((execution.cap ?? 0) / MICROS + 0.01).toFixed(2),
  });
  const fields = {key, cap};
  const show = () => {
    for (const [name, {input, row}] of Object.entries(fields)) {
      row.hidden = !needs.has(name);
      input.disabled = row.hidden; // a hidden field is neither asked for nor sent
    }
  };
  const button = node("button", {class: "nb-button nb-primary"}, element.say("run.resume"));
  const wrong = node("p", {class: "nb-wrong", role: "alert"});
  const complain = (error) => {
    const told = sentence(element, error);
    const blamed = error instanceof Refusal ? blame(error) : "";
    if (blamed) {
      needs.add(blamed);
      show();
      fields[blamed].at.tell(told);
    } else wrong.textContent = told;
  };
  const form = node("form", {class: "nb-resume", autocomplete: "off"}, key.row, cap.row, button, wrong);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (button.getAttribute("aria-disabled")) return;
    const body = {};
    if (needs.has("key")) body.api_key = key.input.value.trim();
    if (needs.has("cap")) body.cap_micros = Math.round(Number(cap.input.value) * MICROS);
    wrong.textContent = "";
    key.at.clear();
    cap.at.clear();
    button.setAttribute("aria-disabled", "true");
    try {
      await go(body);
      key.input.value = ""; // it has come where it belongs, and stays nowhere here
    } catch (error) {
      if (!unanswered(error)) key.input.value = "";
      complain(error);
    }
    button.removeAttribute("aria-disabled");
  });
  show();
  return form;
}

// Which field a refusal is about.
function blame(error) {
  const names = error.fields.map((field) => field.field);
  if (error.code === "KEY_NEEDED" || names.includes("api_key")) return "key";
  return names.includes("max_cost_micros") ? "cap" : "";
}
