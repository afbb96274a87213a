"""The commands of `thaw`, one module each. They import the core; the core never imports them."""
