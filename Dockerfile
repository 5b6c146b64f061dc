# hashzoo on a plain image of Python, for the CPU:
#
#   docker build --tag hashzoo .
#   docker run --rm --volume "$PWD:/work" --user "$(id -u):$(id -g)" hashzoo bench digits --quick
FROM python:3.12-slim-bookworm

# Builds of torch for a GPU are several GB; give another index for one, or an empty one for the default build.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

COPY pyproject.toml README.md LICENSE /src/
COPY hashzoo /src/hashzoo
COPY plugins /src/plugins
COPY benchmarks /src/benchmarks
RUN pip install --no-cache-dir --extra-index-url "$TORCH_INDEX" '/src[plots,search,ui]'

# Any user may run it: caches are in a folder that everyone may write to.
RUN mkdir -m 1777 /cache
ENV HASHZOO_CACHE=/cache/hashzoo NUMBA_CACHE_DIR=/cache/numba MPLCONFIGDIR=/cache/matplotlib
WORKDIR /work
ENTRYPOINT ["hashzoo"]
CMD ["--help"]
