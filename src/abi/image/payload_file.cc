// Initrds and modules: files that go into guest memory as they are.
#include <algorithm>
#include <optional>

#include "abi/image/kernel.h"
#include "base/bits.h"

namespace bulkhead::abi {
namespace {

Result<void> read_into(std::string_view what, const std::string& path, const FileSource& file,
                       const GuestMemory& memory, Gpa at) {
  if (auto read = file.read(0, {memory.host(at, file.size()), file.size()}); !read)
    return fail("the {} {}: {}", what, path, read.error().message);
  return {};
}

// The highest place for `size` bytes below `limit`, above the kernel, in the RAM range that starts lowest: what lies
// above 4 GiB is out of every boot protocol's reach.
std::optional<Gpa> highest_place(const GuestMemory& memory, const Kernel& kernel, u64 size, Gpa limit) {
  const RamRange& low = memory.ranges().front();
  const u64 top = std::min(limit.value, low.start.value + low.size);
  if (size > top) return std::nullopt;
  const Gpa at{align_down(top - size, kPageSize)};
  if (at < kernel.loaded.end() || at < kFirmwareEnd) return std::nullopt;
  return at;
}
}  // namespace

Result<Extent> load_high(std::string_view what, const std::string& path, const GuestMemory& memory,
                         const Kernel& kernel, Gpa limit) {
  BH_ASSIGN(const FileSource file, FileSource::open(what, path));
  if (file.size() == 0) return fail("the {} {} is empty", what, path);
  const auto at = highest_place(memory, kernel, file.size(), limit);
  if (!at) {
    const RamRange& low = memory.ranges().front();
    const u64 top = std::min(limit.value, low.start.value + low.size);
    const u64 floor = std::max(kernel.loaded.end(), kFirmwareEnd).value;
    return fail(
        "the {} {} does not fit: it has {} bytes, but between the kernel's end at {:#x} and {:#x} there are {}; "
        "give the zone more memory",
        what, path, file.size(), floor, top, top > floor ? top - floor : 0);
  }
  BH_TRY(read_into(what, path, file, memory, *at));
  return Extent{*at, file.size()};
}

Result<Extent> load_at(std::string_view what, const std::string& path, const GuestMemory& memory, Gpa at) {
  BH_ASSIGN(const FileSource file, FileSource::open(what, path));
  const Gpa start{align_up(at.value, kPageSize)};
  if (file.size() == 0) return Extent{start, 0};
  if (start.value + file.size() > 4_GiB || memory.host(start, file.size()) == nullptr)
    return fail("the {} {} does not fit: {} bytes at {:#x} are more than the zone's memory of {} MiB holds", what, path,
                file.size(), start.value, memory.size() >> 20);
  BH_TRY(read_into(what, path, file, memory, start));
  return Extent{start, file.size()};
}

}  // namespace bulkhead::abi
