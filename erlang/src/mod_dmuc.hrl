%% What the hooks of mod_dmuc find through persistent_term.

-define(NS_DMUC, <<"urn:xmpp:tmp:dmuc:1">>).

%% Handles of the native library.
-type native() :: reference().

%% A MUC service that carries its rooms in links. A new `gen' means: forget what you knew.
-record(primary,
        {host        :: binary(),
         server_host :: binary(),
         server      :: atom(),
         gen         :: reference(),
         shared      :: native(),
         support     :: native()}).

%% A user domain that accepts links.
-record(replica,
        {host   :: binary(),
         server :: atom(),
         gen    :: reference(),
         handle :: native()}).
