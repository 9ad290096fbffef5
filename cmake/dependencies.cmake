# Every dependency, pinned in one place (versions of apt packages are Debian 12's; scripts/setup installs them).
set(MS_DEPS ${CMAKE_SOURCE_DIR}/.deps CACHE PATH "Where scripts/setup puts what apt does not have")

# Arrow C++ 26.0.1, as shipped in the pinned pyarrow wheel: columnar data, Parquet, CSV.
file(GLOB pyarrow_dirs ${MS_DEPS}/venv/lib/python3*/site-packages/pyarrow)
if(NOT pyarrow_dirs)
  message(FATAL_ERROR "no pyarrow below ${MS_DEPS}/venv: run scripts/setup")
endif()
list(GET pyarrow_dirs 0 PYARROW_DIR)
function(ms_arrow_library target file)
  add_library(${target} SHARED IMPORTED)
  set_target_properties(${target} PROPERTIES IMPORTED_LOCATION ${PYARROW_DIR}/${file}
    INTERFACE_INCLUDE_DIRECTORIES ${PYARROW_DIR}/include INTERFACE_SYSTEM_INCLUDE_DIRECTORIES ${PYARROW_DIR}/include)
endfunction()
ms_arrow_library(arrow::arrow libarrow.so.2600)
ms_arrow_library(arrow::compute libarrow_compute.so.2600)
ms_arrow_library(arrow::parquet libparquet.so.2600)
target_link_libraries(arrow::compute INTERFACE arrow::arrow)
target_link_libraries(arrow::parquet INTERFACE arrow::compute arrow::arrow)
# The binary finds Arrow from its own place, so that a clone can be moved.
file(RELATIVE_PATH pyarrow_from_bin ${CMAKE_BINARY_DIR}/bin ${PYARROW_DIR})
set(CMAKE_BUILD_RPATH "$ORIGIN/${pyarrow_from_bin}")
set(CMAKE_BUILD_WITH_INSTALL_RPATH OFF)

find_package(Threads REQUIRED)
find_package(fmt REQUIRED)            # formatting
find_package(spdlog REQUIRED)         # logging
find_package(yaml-cpp REQUIRED)       # job files (target: yaml-cpp)
find_package(CLI11 REQUIRED)          # command line
find_package(nlohmann_json REQUIRED)  # specs and reports
find_package(ZLIB REQUIRED)           # .gz input
find_package(CURL REQUIRED)           # S3: HTTP and signatures
find_package(OpenSSL REQUIRED)        # S3: SHA-256 and MD5 of objects; libcurl's TLS
find_package(EXPAT REQUIRED)          # S3: listings and errors
find_path(RAPIDJSON_INCLUDE_DIR rapidjson/reader.h REQUIRED)  # rows, as SAX events
find_path(XXHASH_INCLUDE_DIR xxhash.h REQUIRED)               # hashes of rows and files
find_library(ZSTD_LIBRARY zstd REQUIRED)                      # .zst input

# Tokenizers, templates and grammars: one Rust static library with a small C interface.
add_library(ms_text_rust STATIC IMPORTED)
set_target_properties(ms_text_rust PROPERTIES IMPORTED_LOCATION ${MS_DEPS}/rust/release/libmillstream_text.a)
target_link_libraries(ms_text_rust INTERFACE Threads::Threads ${CMAKE_DL_LIBS} m)

if(MS_BUILD_TESTS)
  find_package(GTest REQUIRED)
endif()
