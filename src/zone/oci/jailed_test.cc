#include "zone/oci/jailed.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "zone/oci/image.h"
#include "zone/oci/tar_maker.h"
#include "zone/store/sha256.h"

namespace bulkhead::zone {
namespace {

namespace files = std::filesystem;
using test::TarMaker;
using ::testing::HasSubstr;

class JailTest : public ::testing::Test {
 protected:
  JailTest() {
    std::string name = files::temp_directory_path() / "bulkhead-jail-XXXXXX";
    folder_ = ::mkdtemp(name.data());
    files::create_directory(folder_ / "ours");
    std::ofstream{folder_ / "secret"} << "the host's";
  }
  ~JailTest() override { files::remove_all(folder_); }
  Result<std::string> jailed(const std::function<Result<std::string>()>& work) {
    return in_jail({{folder_ / "ours", folder_ / "ours"}}, workshop_, [&](Workshop&) { return work(); });
  }
  // Whether this host lets us have namespaces; looked for in a process that ends.
  static bool can_confine() {
    const pid_t child = ::fork();
    if (child == 0) ::_exit(fs::own_namespaces() ? 0 : 1);
    int status = 0;
    ::waitpid(child, &status, 0);
    return status == 0;
  }

  files::path folder_;
  Progress progress_{Progress::Show::kNever};
  Workshop workshop_{progress_, nullptr};
};

TEST_F(JailTest, SaysWhatTheWorkSays) {
  EXPECT_EQ(jailed([] { return Result<std::string>{"done"}; }).value_or("-"), "done");
  const std::string much(3'000'000, 'x');
  EXPECT_EQ(jailed([&] { return Result<std::string>{much}; }).value_or("-"), much);
  EXPECT_EQ(jailed([]() -> Result<std::string> { return fail("it is broken"); }).error().message, "it is broken");
}

TEST_F(JailTest, AChildThatIsKilledIsAnError) {
  const auto killed = jailed([]() -> Result<std::string> { __builtin_trap(); });
  ASSERT_FALSE(killed);
  EXPECT_THAT(killed.error().message, HasSubstr("the process that unpacks the image ended"));
}

TEST_F(JailTest, HasItsFilesAndNoOthers) {
  if (!can_confine()) GTEST_SKIP() << "this host lets us have no namespaces";
  const auto seen = jailed([&]() -> Result<std::string> {
    std::string out;
    std::ofstream{folder_ / "ours" / "made"} << "in the jail";
    for (const char* const path : {"/etc/passwd", "/proc/self/status", "/bin/sh", "/dev/null"})
      if (::access(path, F_OK) == 0) out += path;
    if (::access((folder_ / "secret").c_str(), F_OK) == 0) out += "the secret";
    if (std::ofstream{"/outside"}) out += "a file outside";
    return out;
  });
  EXPECT_EQ(seen.value_or("failed"), "");
  EXPECT_TRUE(files::exists(folder_ / "ours" / "made"));
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
TEST_F(JailTest, MakesNoConnectionsAndRunsNothing) {
  const auto errors = jailed([]() -> Result<std::string> {
    const int socket = ::socket(AF_INET, SOCK_STREAM, 0);
    const int socket_error = socket < 0 ? errno : 0;
    ::execl("/proc/self/exe", "again", nullptr);
    return fmt::format("{} {}", socket_error, errno);
  });
  EXPECT_EQ(errors.value_or("failed"), fmt::format("{} {}", ENOSYS, ENOSYS));
}
#endif

// ---- whole images, through the jail

class ImageTest : public JailTest {
 protected:
  static std::string digest_of(const std::string& bytes) {
    Sha256 sha;
    sha.add(std::as_bytes(std::span{bytes}));
    return sha.hex();
  }
  std::string put_blob(const std::string& bytes) {
    const std::string digest = digest_of(bytes);
    files::create_directories(layout() / "blobs/sha256");
    std::ofstream{layout() / "blobs/sha256" / digest, std::ios::binary} << bytes;
    return digest;
  }
  nlohmann::json descriptor(const std::string& type, const std::string& bytes) {
    return {{"mediaType", "application/vnd.oci.image." + type},
            {"digest", "sha256:" + put_blob(bytes)},
            {"size", bytes.size()}};
  }
  void make_layout(const std::string& layer) {
    const nlohmann::json config = {{"architecture", "amd64"},
                                   {"os", "linux"},
                                   {"config", {{"Cmd", {"sh"}}}},
                                   {"rootfs", {{"type", "layers"}, {"diff_ids", {"sha256:" + digest_of(layer)}}}}};
    const nlohmann::json manifest = {{"schemaVersion", 2},
                                     {"config", descriptor("config.v1+json", config.dump())},
                                     {"layers", {descriptor("layer.v1.tar", layer)}}};
    const nlohmann::json index = {{"schemaVersion", 2},
                                  {"manifests", {descriptor("manifest.v1+json", manifest.dump())}}};
    std::ofstream{layout() / "index.json"} << index.dump();
    std::ofstream{layout() / "oci-layout"} << R"({"imageLayoutVersion": "1.0.0"})";
  }
  files::path layout() const { return folder_ / "layout"; }
  Result<StoredImage> load() {
    auto cache = Cache::open_at(folder_ / "cache");
    ImageReference reference;
    reference.path = layout();
    reference.text = "oci:test";
    return load_image(reference, *cache, workshop_);
  }
  static bool has_tool() { return !find_tool("mkfs.erofs").empty() || !find_tool("mkfs.ext4").empty(); }
};

TEST_F(ImageTest, IsUnpackedWithWhatItIs) {
  if (!has_tool()) GTEST_SKIP() << "neither mkfs.erofs nor mkfs.ext4 is installed";
  make_layout(TarMaker{}
                  .folder("etc/")
                  .file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
                  .file("gr\xc3\xbc\xc3\x9f", "a name of more than ASCII")
                  .add("theirs", "x", {.mode = 0640, .uid = 1000, .gid = 1001})
                  .link("away", "/../../../etc/shadow")
                  .hard_link("again", "theirs")
                  .finish());
  const auto image = load();
  ASSERT_TRUE(image) << image.error().message;
  EXPECT_EQ(image->passwd, "root:x:0:0:root:/root:/bin/sh\n");
  EXPECT_GT(image->bytes, 0u);
  EXPECT_TRUE(load()) << "again, from the cache";
}

TEST_F(ImageTest, ThatLiesLeavesNothing) {
  make_layout(TarMaker{}.file("../escaped", "x").finish());
  const auto image = load();
  ASSERT_FALSE(image);
  EXPECT_THAT(image.error().message, HasSubstr("'..'"));
  EXPECT_TRUE(files::is_empty(folder_ / "cache" / "images"));
  EXPECT_FALSE(files::exists(folder_ / "cache" / "escaped"));
}

TEST_F(ImageTest, ThatIsNotThere) {
  const auto image = load();
  ASSERT_FALSE(image);
  EXPECT_THAT(image.error().message, HasSubstr("there is no image"));
}

}  // namespace
}  // namespace bulkhead::zone
