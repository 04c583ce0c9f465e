#include "control/program.h"

int main(int argc, char** argv) { return bulkhead::control::main_program(argc, argv); }
