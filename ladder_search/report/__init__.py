"""What searches and reproductions found, in words, tables and pictures: on the console, as Markdown and as HTML."""
