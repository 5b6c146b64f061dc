"use strict";
// Without this the page works by its form; with it a picture can be dropped anywhere, and choosing one is asking.
const form = document.getElementById("ask");
const first = document.getElementById("first");
const second = form.querySelector("details");

first.addEventListener("change", () => {
  if (first.files.length && !second.open) form.requestSubmit();
});
addEventListener("dragover", (event) => {
  event.preventDefault();
  form.classList.add("over");
});
addEventListener("dragleave", () => form.classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  form.classList.remove("over");
  if (!event.dataTransfer.files.length) return;
  const taken = new DataTransfer();
  taken.items.add(event.dataTransfer.files[0]);
  first.files = taken.files;
  if (!second.open) form.requestSubmit();
});
