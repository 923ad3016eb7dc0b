// What a paused run needs to go on: nothing, another key, a higher cap.
import {dollars, node} from "./base.js";

const MICROS = 1e6;

// Returns a form; go({api_key, cap_micros}) resolves to "" or to the reason why more is needed.
export function resumeForm(element, execution, go) {
  const needs = new Set({INVALID_KEY: ["key"], SPEND_CAP: ["cap"]}[execution.pause] ?? []);
  const field = (name, label, attributes) => {
    const input = node("input", {id: `nb-resume-${name}`, required: true, ...attributes});
    const row = node("p", {class: "nb-field", hidden: true}, node("label", {for: input.id}, label), input);
    return {input, row};
  };
  const key = field("key", element.say("key.label"), {type: "password", autocomplete: "new-password", spellcheck: "false"});
  const cap = field("cap", element.say("resume.cap", {cap: dollars(execution.cap ?? 0)}), {
    type: "number", inputmode: "decimal", step: "0.01", min: ((execution.cap ?? 0) / MICROS + 0.01).toFixed(2),
  });
  const show = () => {
    for (const [name, {input, row}] of Object.entries({key, cap})) {
      row.hidden = !needs.has(name);
      input.disabled = row.hidden; // a hidden field is neither asked for nor sent
    }
  };
  const form = node("form", {class: "nb-resume", autocomplete: "off"}, key.row, cap.row,
    node("button", {class: "nb-button nb-primary"}, element.say("run.resume")));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const body = {};
    if (needs.has("key")) body.api_key = key.input.value.trim();
    if (needs.has("cap")) body.cap_micros = Math.round(Number(cap.input.value) * MICROS);
    key.input.value = ""; // it goes with the request and stays nowhere
    if (await go(body) === "KEY_NEEDED") {
      needs.add("key");
      show();
      key.input.focus();
    }
  });
  show();
  return form;
}
