// Every prompt once more: numbered, editable, removable, with what is wrong beside it.
import {Element, node} from "./base.js";

class Review extends Element {
  #drawn = null;

  changed() {
    const prompts = this.value.form?.prompts ?? [];
    const problems = this.value.problems ?? {};
    // A redraw would take the cursor away from who is typing: only when the prompts are not the ones shown.
    if (JSON.stringify(prompts) !== this.#drawn) this.#draw(prompts);
    [...this.querySelectorAll("li")].forEach((item, index) => {
      const wrong = problems[index] ?? [];
      const place = item.querySelector(".nb-wrong");
      place.textContent = wrong.join(" ");
      item.querySelector("textarea").setAttribute("aria-invalid", wrong.length ? "true" : "false");
    });
  }

  #draw(prompts) {
    this.#drawn = JSON.stringify(prompts);
    const items = prompts.map((prompt, index) => {
      const number = index + 1;
      const box = node("textarea", {
        "aria-label": this.say("review.prompt", {number}), rows: Math.min(6, prompt.split("\n").length + 1), dir: "auto",
        "aria-describedby": `nb-wrong-${index}`,
      });
      box.value = prompt;
      box.addEventListener("change", () => this.#set(prompts.with(index, box.value.trim()), true));
      return node("li", {},
        box,
        node("button", {
          type: "button", "aria-label": this.say("review.remove", {number}),
          onclick: () => this.#set(prompts.filter((_, other) => other !== index), false),
        }, "✕"),
        node("p", {class: "nb-wrong", id: `nb-wrong-${index}`}));
    });
    this.replaceChildren(node("ol", {class: "nb-review"}, ...items));
  }

  #set(prompts, keep) {
    const value = {...this.value, form: {...this.value.form, prompts}, problems: {}};
    if (keep) this.#drawn = JSON.stringify(prompts);
    this.tell("nb-change", value);
    if (!keep) this.changed();
    else this.#draw(prompts);
  }
}

customElements.define("nb-review", Review);
