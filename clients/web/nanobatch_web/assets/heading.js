// What a page is, as its one <h1> and in the title of its tab. Value: {title: key of the catalogue}.
import {Element, node} from "./base.js";

class Heading extends Element {
  changed() {
    const title = this.say(this.value.title);
    this.replaceChildren(node("h1", {}, title));
    // The wizard's tab is its board's: it shows how far the run is.
    if (this.value.title !== "app.new") document.title = `${title} · nanobatch`;
  }
}

customElements.define("nb-heading", Heading);
