// Puts the token of a link, which stands after the sign # of its address, into the form, and hides the field.
"use strict";
(() => {
  const field = document.getElementById("token");
  const use = () => {
    if (location.hash.length < 2) return;
    field.value = location.hash.slice(1);
    field.hidden = true;
    field.labels[0].hidden = true;
  };
  use();
  addEventListener("hashchange", use);
})();
