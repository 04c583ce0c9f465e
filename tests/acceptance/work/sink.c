// Behind zbench.c: what its computations came to.
__attribute__((destructor)) static void print_sink(void) { printf("sink %016llx rng %016llx\n", (unsigned long long)sink, (unsigned long long)rng); }
