// Any bytes as a kernel file: an answer, never a crash, and what was loaded lies in RAM.
#include "abi/image/kernel.h"
#include "base/assert.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace bulkhead;
  auto memory = GuestMemory::create_pc(24_MiB);
  if (!memory) return 0;
  const abi::MemorySource source{std::as_bytes(std::span{data, size})};
  const auto kernel = abi::load_kernel(source, "fuzz", *memory, std::nullopt);
  if (kernel)
    BH_ASSERT(memory->host(kernel->loaded.start, kernel->loaded.size) != nullptr || !kernel->setup);
  else
    BH_ASSERT(!kernel.error().message.empty());
  return 0;
}
