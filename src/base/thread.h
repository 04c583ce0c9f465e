// Threads for the monitor's own work.
#pragma once
#include <functional>
#include <string>
#include <thread>

namespace bulkhead {

// Starts a thread with every signal blocked, for signals belong to the threads that the monitor chose for them. `name`
// is what tools show, at most 15 bytes. Throws std::system_error, as std::thread does, if the host gives no thread.
std::thread start_thread(const std::string& name, std::function<void()> body);

}  // namespace bulkhead
