"""Ray adapters, one trainable per family: the only code that both Ray and the library meet in."""
