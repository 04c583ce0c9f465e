#include "zone/kernel/module_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  (void)bulkhead::zone::parse_module(std::as_bytes(std::span{data, size}));
  (void)bulkhead::zone::unpack_module(std::string(reinterpret_cast<const char*>(data), size));
  return 0;
}
