%%% Metrics over HTTP in the format that OpenMetrics and Prometheus read: for a listener's
%%% `request_handlers', in which it stands by its own name.
%%%
%%% Answers whoever asks from the machine itself, as Prosody's module does.
-module(mod_dmuc_metrics).

-export([process/2]).

-include("ejabberd_http.hrl").

-define(TYPE, {<<"Content-Type">>, <<"text/plain; version=0.0.4; charset=utf-8">>}).

-spec process([binary()], #request{}) -> {integer(), [{binary(), binary()}], iodata()}.
process([], #request{method = 'GET', ip = {IP, _Port}}) ->
    case is_here(IP) of
        true -> {200, [?TYPE], text()};
        false -> {403, [], <<"For this machine only">>}
    end;
process(_, _) ->
    {404, [], <<"Not found">>}.

-spec is_here(inet:ip_address()) -> boolean().
is_here({127, _, _, _}) -> true;
is_here({0, 0, 0, 0, 0, 0, 0, 1}) -> true;
is_here({0, 0, 0, 0, 0, 16#ffff, High, _}) -> High bsr 8 == 127;
is_here(_) -> false.

%% One family after the other, each with a line for every virtual host.
-spec text() -> iodata().
text() ->
    Of = [{Host, mod_dmuc_nif:metrics(Shared)}
          || Host <- ejabberd_option:hosts(),
             {Shared, _, _} <- [mod_dmuc_server:host(Host)]],
    Lines = [[{{Kind, Name, Doc}, Host, Value} || {Kind, Name, Doc, Value} <- Metrics]
             || {Host, Metrics} <- Of],
    Families = case Of of
                   [] -> [];
                   [{_, First} | _] -> [{Kind, Name, Doc} || {Kind, Name, Doc, _} <- First]
               end,
    [family(Family, [{Host, Value} || {F, Host, Value} <- lists:append(Lines), F == Family])
     || Family <- Families].

-spec family({counter | gauge, binary(), binary()}, [{binary(), non_neg_integer()}]) -> iodata().
family({Kind, Name0, Doc}, Values) ->
    Name = case Kind of
               counter -> <<"dmuc_", Name0/binary, "_total">>;
               gauge -> <<"dmuc_", Name0/binary>>
           end,
    [io_lib:format("# HELP ~ts ~ts~n# TYPE ~ts ~s~n", [Name, Doc, Name, Kind]),
     [io_lib:format("~ts{host=\"~ts\"} ~B~n", [Name, Host, Value]) || {Host, Value} <- Values]].
