"""Reports of evaluations: tables, figures, pages, comparisons. Knows no model and no Inspect."""
