// Any bytes as a whole image.
#include "block/qcow2/grind.h"

extern "C" int LLVMFuzzerTestOneInput(const bulkhead::u8* data, std::size_t size) {
  using namespace bulkhead::block;
  static const std::unique_ptr<Executor> executor = std::move(*Executor::create({.engine = IoEngineKind::kThreads}));
  const auto bytes = std::as_bytes(std::span{data, size});
  qcow2::grind_image(*executor, {bytes.begin(), bytes.end()});
  return 0;
}
