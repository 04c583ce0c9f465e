// Whatever a specification, a process, limits or annotations hold, we end with a value or with one line.
#include "container/bundle/annotations.h"
#include "container/bundle/read_spec.h"
#include "container/bundle/resources.h"

namespace {

using namespace bulkhead;
using namespace bulkhead::container;

template <class Value>
void judge(const Result<Value>& read) {
  if (!read && (read.error().message.empty() || read.error().message.find('\n') != std::string::npos)) __builtin_trap();
}

void whole(const std::string& text) {
  judge(read_place(text));
  const auto bundle = read_spec(text, "c1");
  judge(bundle);
  if (!bundle) return;
  // What the agent binds is in this container's own part of the shared folder, or the zone's memory.
  for (const pod::Mount& mount : bundle->container.mounts())
    if (mount.kind() == pod::Mount::BIND && !mount.source().starts_with("c1/mount-") && mount.source() != "/dev/shm")
      __builtin_trap();
  for (const SharedPath& shared : bundle->shared)
    if (!shared.source.starts_with('/') || !shared.place.starts_with("c1/mount-")) __builtin_trap();
  if (bundle->container.SerializeAsString().empty()) __builtin_trap();
  judge(zone_wish(bundle->annotations, bundle->limits));
  (void)limits_of(bundle->annotations);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string text{reinterpret_cast<const char*>(data) + 1, size - 1};
  switch (data[0] % 4) {
    case 0:
      judge(read_process(text));
      return 0;
    case 1: {
      Settings settings;
      judge(add_settings_from(text, settings));
      return 0;
    }
    default:
      whole(text);
      return 0;
  }
}
