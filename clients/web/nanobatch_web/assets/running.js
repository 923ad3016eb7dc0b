// Batches that are going on: who comes back without the address of one, on whatever device, is led to it from here.
import {clock, Element, get, MOUNT, node, outOf} from "./base.js";

const NEWEST = 20; // where they are looked for
const MOST = 3;

class Running extends Element {
  #look = () => { if (!document.hidden) this.#find(); };
  #sight = new IntersectionObserver((seen) => { if (seen.some((one) => one.isIntersecting)) this.#look(); });

  start() {
    document.addEventListener("visibilitychange", this.#look);
    this.#sight.observe(this);
  }

  stop() {
    document.removeEventListener("visibilitychange", this.#look);
    this.#sight.disconnect();
  }

  async #find() {
    try {
      const {runs} = await get(`/history?${new URLSearchParams({count: NEWEST})}`);
      this.#show(runs.filter((run) => !run.final).slice(0, MOST));
    } catch { /* nb-reconnect says so; the history knows them as well */ }
  }

  #show(runs) {
    const link = (run) => node("a", {href: `${MOUNT}/?execution=${encodeURIComponent(run.id)}`},
      `${clock(run.created)} · ${this.say(`state.${run.state}`)} · ${outOf(this, run.stats)}`);
    this.replaceChildren(...(runs.length ? [node("nav", {class: "nb-note", "aria-label": this.say("running.label")},
      node("strong", {}, this.say("running.label")), node("ul", {}, ...runs.map((run) => node("li", {}, link(run)))))] : []));
  }
}

customElements.define("nb-running", Running);
