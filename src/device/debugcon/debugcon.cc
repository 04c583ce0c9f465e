#include "device/debugcon/debugcon.h"

#include <algorithm>

namespace bulkhead::device {

Debugcon::Debugcon(ConsoleBackend& backend) : backend_{backend} {
  backend_.set_callbacks([] {},
                         [this] {
                           Lock lock{mutex_};
                           flush();
                         });
}

Debugcon::~Debugcon() {
  backend_.set_callbacks([] {}, [] {});
}

void Debugcon::write_byte(unsigned, u8 value) {
  Lock lock{mutex_};
  if (waiting_.size() >= kBufferLimit) return dropped_.add();
  waiting_.push_back(std::byte{value});
  // While earlier bytes wait, `writable` will come; asking the backend again for each byte would only cost.
  if (waiting_.size() == 1) flush();
}

void Debugcon::flush() {
  while (!waiting_.empty()) {
    const std::size_t taken = std::min(backend_.write(waiting_), waiting_.size());
    if (taken == 0) return;
    waiting_.erase(waiting_.begin(), waiting_.begin() + static_cast<std::ptrdiff_t>(taken));
  }
}

}  // namespace bulkhead::device
