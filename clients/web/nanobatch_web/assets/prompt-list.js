// Under the prompt box: how many there are, how each begins, and what is odd about it.
// Value: {source: selector of the box, limit: characters that the model takes}.
import {Element, node} from "./base.js";
import {lengthOf, MAX_PROMPTS, splitPrompts} from "./prompts.js";

const FIRST = 90;

class PromptList extends Element {
  #timer = null;
  #source = null;
  #listen = () => this.#draw();

  start() {
    // Gradio makes the box when it likes, and sets its value without an event: look, rather than trust an order.
    this.#timer = setInterval(() => {
      const source = document.querySelector(this.value.source);
      if (source !== this.#source) {
        this.#source?.removeEventListener("input", this.#listen);
        this.#source = source;
        source?.addEventListener("input", this.#listen);
      }
      if (source && source.value !== this.text) this.#draw();
    }, 300);
  }

  stop() {
    clearInterval(this.#timer);
    this.#source?.removeEventListener("input", this.#listen);
    this.#source = null;
  }

  changed() {
    if (this.#source) this.#draw();
  }

  #draw() {
    this.text = this.#source.value;
    const prompts = splitPrompts(this.text);
    const first = new Map();
    const items = prompts.map((prompt, index) => {
      const item = node("li", {dir: "auto"}, prompt.split("\n")[0].slice(0, FIRST));
      const mark = (key, facts) => item.append(" ", node("em", {class: "nb-odd"}, this.say(key, facts)));
      if (first.has(prompt)) mark("prompts.twice", {number: first.get(prompt) + 1});
      else first.set(prompt, index);
      const count = lengthOf(prompt);
      if (this.value.limit && count > this.value.limit) mark("prompts.too_long", {count, limit: this.value.limit});
      return item;
    });
    const count = prompts.length;
    const key = !count ? "prompts.none" : count === 1 ? "prompts.count_one"
      : count > MAX_PROMPTS ? "prompts.too_many" : "prompts.count";
    const told = this.say(key, {count});
    if (!this.count) {
      this.count = node("p", {role: "status"});
      this.list = node("ol", {class: "nb-firsts", tabindex: "0", "aria-label": this.say("prompts.list")});
      this.replaceChildren(this.count, this.list);
    }
    this.count.className = count > MAX_PROMPTS ? "nb-count nb-bad" : "nb-count";
    if (this.count.textContent !== told) this.count.textContent = told; // said aloud once, not at every key
    this.list.hidden = !count;
    this.list.replaceChildren(...items);
  }
}

customElements.define("nb-prompt-list", PromptList);
