#include "container/shim/program.h"

int main(int argc, char** argv) { return bulkhead::container::shim_main(argc, argv); }
