// What the shim's program does, by its first word.
#pragma once
#include "container/shim/flags.h"

namespace bulkhead::container {

// `start`: a server for the pod, or the one that its sandbox has; its address on stdout. Errors: none can be had.
Result<void> start_action(const ShimFlags& flags);
// `delete`: what is left of a pod whose server is gone; a DeleteResponse on stdout.
Result<void> delete_action(const ShimFlags& flags);
// `serve`: the server, on the listening socket that is descriptor 3. Returns when the pod is over.
Result<void> serve_action(const ShimFlags& flags);

inline constexpr int kListeningFd = 3;
inline constexpr char kAddressFile[] = "address";  // in the bundle: containerd looks there after it was restarted

}  // namespace bulkhead::container
