// Puts the token of a link, which stands after the sign # of its address, into the form, and hides the field.
"use strict";
(() => {
  const field = document.getElementById("token");
  const use = () => {
    const token = location.hash.slice(1);
    if (!token || document.getElementById(token)) return; // "Skip to the content" names an element
    field.value = token;
    field.hidden = true;
    field.labels[0].hidden = true;
  };
  use();
  addEventListener("hashchange", use);
})();
