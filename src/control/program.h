// The whole program behind main().
#pragma once

namespace bulkhead::control {

int main_program(int argc, char** argv);  // returns the exit status

}  // namespace bulkhead::control
