// A process' input and output: between the FIFOs that containerd has made and the agent's calls Read and Write. Nothing
// is stored but one piece each way, so whoever reads slowly slows the process, and nobody else.
#pragma once
#include <memory>
#include <string>

#include "container/shim/pod.h"

namespace bulkhead::container {

struct StreamPaths {
  std::string input, output, error;  // empty: none
  bool terminal = false;             // then there is no error
};

class Streams : public std::enable_shared_from_this<Streams> {
 public:
  // Errors: a path that is neither a FIFO nor file://PATH.
  static Result<std::shared_ptr<Streams>> open(Loop& loop, Pod& pod, pod::ProcessName name, const StreamPaths& paths);
  ~Streams();
  void begin();        // the process is there
  void close_input();  // when what is in the FIFO now is with the process
  void close();        // at once
  bool ended() const { return !outputs_[0].fd && !outputs_[1].fd; }
  // When the process has ended: calls `done` when all that it has said is passed on, however long the zone takes to
  // hand it over, or when nobody took any of it for as long as `patience`. What children that it left behind say is not
  // waited for.
  void drained(Nanoseconds patience, Loop::Work done);

 private:
  struct Output {
    UniqueFd fd;
    std::string piece;
  };
  Streams(Loop& loop, Pod& pod, pod::ProcessName name) : loop_{loop}, pod_{pod}, name_{std::move(name)} {}
  void probe(Nanoseconds patience);
  void probed(Nanoseconds patience, u64 passed);
  void wait_for_reader(Nanoseconds patience, u64 passed);
  void ask(unsigned index);
  void pass(unsigned index);
  void end(unsigned index);
  void read_input(short events);
  void end_input();

  Loop& loop_;
  Pod& pod_;
  const pod::ProcessName name_;
  UniqueFd input_;
  bool begun_ = false, input_closing_ = false;
  Output outputs_[2];
  u64 passed_ = 0;  // bytes of output
  Loop::Work drained_;
};

}  // namespace bulkhead::container
