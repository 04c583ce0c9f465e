#pragma once

namespace bulkhead::container {

// containerd-shim-bulkhead-v2's main(): see README.md.
int shim_main(int argc, char** argv);

}  // namespace bulkhead::container
