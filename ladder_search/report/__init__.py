"""Results of searches and reproductions as texts, tables and pictures: on the console, as Markdown and as HTML."""
