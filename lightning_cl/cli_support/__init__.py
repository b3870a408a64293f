"""Parts of the ``lightning-cl`` command; the modules that are needed for ``list`` and ``--help`` import no torch."""
