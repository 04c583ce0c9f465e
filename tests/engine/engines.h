// The engines that the conformance suite is run against.
#pragma once
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "engine/engine.h"

namespace bulkhead::engine {

// What not every host gives an engine that rests on it.
enum class Need : u8 { kEveryInstruction, kModifiedCode };

struct EngineUnderTest {
  std::string name;  // of the test instance
  std::function<std::unique_ptr<Engine>()> make;
  std::vector<std::pair<std::string, std::string>> options;
  // Why the engine cannot do that on this host, or empty.
  std::function<std::string(Need)> lacks = [](Need) { return std::string{}; };
};
inline std::ostream& operator<<(std::ostream& out, const EngineUnderTest& engine) { return out << engine.name; }

const std::vector<EngineUnderTest>& engines_under_test();

}  // namespace bulkhead::engine
