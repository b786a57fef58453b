# docker build -t peftc --build-arg PEFTC_COMMIT=$(git rev-parse --short=10 HEAD) .
# docker run --rm -v "$PWD:/work" --user "$(id -u):$(id -g)" peftc check recipe.peft
FROM rust:1-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
ARG PEFTC_COMMIT
ENV PEFTC_COMMIT=$PEFTC_COMMIT
RUN cargo build --release --locked --bin peftc && strip target/release/peftc

# A run needs nothing but the program. CUDA's libraries, where there is a GPU, come with the container's runtime and from the host.
FROM debian:bookworm-slim
COPY --from=build /source/target/release/peftc /usr/local/bin/peftc
COPY --from=build /source/LICENSE-MIT /source/LICENSE-APACHE /source/NOTICE /usr/share/doc/peftc/
RUN useradd --create-home --uid 1000 peftc && mkdir /work && chown peftc /work
USER peftc
WORKDIR /work
# Models and data are read from the folder that is mounted; what may be downloaded beforehand is not downloaded in a run.
ENV HF_HUB_OFFLINE=1
ENTRYPOINT ["peftc"]
CMD ["--help"]
