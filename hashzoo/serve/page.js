"use strict";
// The page works without this script. With it, an image can be dropped anywhere, and choosing one starts the search.
const form = document.getElementById("search");
const first = document.getElementById("first");
const details = form.querySelector("details");

first.addEventListener("change", () => {
  if (first.files.length && !details.open) form.requestSubmit();
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
  const transfer = new DataTransfer();
  transfer.items.add(event.dataTransfer.files[0]);
  const input = details.contains(event.target) ? details.querySelector("input") : first;
  input.files = transfer.files;
  if (!details.open) form.requestSubmit();
});
