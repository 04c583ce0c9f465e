// Images opened by a tool, from a plain thread: one executor, and graphs that are closed with an answer.
#pragma once
#include "block/formats/formats.h"
#include "block/qcow2/qcow2_node.h"

namespace bulkhead::block::tools {

class Session {
 public:
  static Result<std::unique_ptr<Session>> create(IoEngineKind engine = IoEngineKind::kAuto);
  // Closes what is open still; errors of that are lost, so close() what was written to.
  ~Session();

  Executor& executor() { return *executor_; }
  Result<NodePtr> open(OpenRequest request);
  // With what is below it.
  Result<void> close(const NodePtr& node);
  template <class T>
  T run(Task<T> task) {
    return executor_->run(std::move(task));
  }

 private:
  explicit Session(std::unique_ptr<Executor> executor) : executor_{std::move(executor)} {}
  std::unique_ptr<Executor> executor_;
  std::vector<NodePtr> open_;
};

qcow2::Qcow2Node* as_qcow2(Node* node);  // or nullptr
bool is_encrypted(Node* node);           // this image alone
// Whether `node`, or an image that it stands on, is encrypted. `base`: where to stop, not looked at; nullptr: all.
bool any_encrypted(Node* node, const Node* base = nullptr);
// Options of OpenRequest for an image's key and for the keys of those below it; either may be empty.
std::map<std::string, std::string> key_options(const std::string& key_file, const std::string& backing_key_file);

// An image to be made: what was in the file is lost. `format`: raw or qcow2.
struct NewImage {
  std::string path, format = "qcow2";
  qcow2::CreateOptions options;
  std::string key_file{};          // not empty: encrypted by LUKS with what this file holds
  std::string backing_key_file{};  // of the images that it is to stand on
  unsigned key_time_ms = 1000;     // that unlocking it is to take
};
Result<void> create_image(Session& session, const NewImage& image);

// "10G", "512M", "1.5T", "4096", with k M G T P E of 1024. Errors: anything else.
Result<u64> parse_bytes(const std::string& text);

Error failed(const Node& node, std::string_view what, IoStatus status);  // in words

}  // namespace bulkhead::block::tools
