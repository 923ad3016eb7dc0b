// Who is signed in, and the way out. Empty where no login is asked for.
import {Element, get, MOUNT, node} from "./base.js";

class Account extends Element {
  async changed() {
    try {
      const me = await get("/me");
      if (!me.signed_in) return;
      this.replaceChildren(node("form", {class: "nb-account", method: "post", action: `${MOUNT}/logout`},
        node("span", {}, this.say("account.name", {name: me.name})),
        node("button", {class: "nb-button"}, this.say("login.out"))));
    } catch { /* nb-reconnect says that nobody answers */ }
  }
}

customElements.define("nb-account", Account);
