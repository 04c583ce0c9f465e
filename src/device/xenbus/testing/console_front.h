// A console's driver in the guest. One thread.
#pragma once
#include <stdint.h>
#include <xen/io/console.h>

#include <atomic>
#include <string>

#include "device/xenbus/testing/fake_events.h"

namespace bulkhead::device::xenbus::testing {

struct ConsoleFront {
  ConsoleFront(FakeEvents& all, std::byte* page)
      : events{all}, port{events.allocate()}, rings{reinterpret_cast<xencons_interface*>(page)} {}

  // How much fit, as a driver writes.
  std::size_t write(std::string_view text) {
    std::size_t done = 0;
    u32 at = rings->out_prod;
    while (done < text.size() && at - std::atomic_ref{rings->out_cons}.load() < sizeof rings->out)
      rings->out[MASK_XENCONS_IDX(at++, rings->out)] = text[done++];
    std::atomic_ref{rings->out_prod}.store(at);
    events.raise(port);
    return done;
  }
  std::string read() {
    std::string text;
    u32 at = rings->in_cons;
    while (at != std::atomic_ref{rings->in_prod}.load()) text += rings->in[MASK_XENCONS_IDX(at++, rings->in)];
    std::atomic_ref{rings->in_cons}.store(at);
    events.raise(port);
    return text;
  }

  FakeEvents& events;
  const u32 port;
  xencons_interface* const rings;
};

}  // namespace bulkhead::device::xenbus::testing
