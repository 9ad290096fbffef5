# Warnings, hardening and sanitizers, the same for every target of ours.
find_program(CCACHE ccache)
if(CCACHE)
  set(CMAKE_C_COMPILER_LAUNCHER ${CCACHE})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE})
endif()

add_library(ms_compiler INTERFACE)
target_compile_options(ms_compiler INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wnon-virtual-dtor
  $<$<CXX_COMPILER_ID:Clang>:-Wthread-safety>
  $<$<BOOL:${MS_WARNINGS_AS_ERRORS}>:-Werror>
  -fstack-protector-strong -fcf-protection)
if(NOT CCACHE) # it makes paths relative itself, and this clone's path as an option would hide its objects from others
  target_compile_options(ms_compiler INTERFACE -ffile-prefix-map=${CMAKE_SOURCE_DIR}/=)
endif()
target_compile_definitions(ms_compiler INTERFACE _GLIBCXX_ASSERTIONS)
target_link_options(ms_compiler INTERFACE -pie -Wl,-z,relro,-z,now)

if(MS_SANITIZE)
  # g++ sees uninitialized variables in the standard library that are none once sanitizers add their code.
  target_compile_options(ms_compiler INTERFACE -fsanitize=${MS_SANITIZE} -fno-omit-frame-pointer -g1 -O1
    -Wno-maybe-uninitialized)
  target_link_options(ms_compiler INTERFACE -fsanitize=${MS_SANITIZE})
  if(MS_SANITIZE MATCHES undefined)
    target_compile_options(ms_compiler INTERFACE -fno-sanitize-recover=undefined)
  endif()
else()
  target_compile_options(ms_compiler INTERFACE $<$<CONFIG:Release>:-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2>)
endif()
